# The app and all it needs, for processors. For NVIDIA GPUs (CUDA comes with PyTorch's wheels, the
# driver from the host):
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
ARG DEBIAN=trixie
FROM debian:${DEBIAN}-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils libgomp1 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/bids_fcnreg
ENV PATH=/opt/bids_fcnreg/bin:$PATH
WORKDIR /source
COPY constraints.txt ./
# Where PyTorch's build comes from; empty: from the usual index of Python packages.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint constraints.txt \
    ${TORCH_INDEX:+--extra-index-url ${TORCH_INDEX}} torch
# The required packages are a layer of their own, which is kept when the code changes.
COPY setup.cfg ./
RUN python -c "from configparser import ConfigParser as P; p = P(); p.read('setup.cfg'); \
        print(p['options']['install_requires'])" > requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
COPY pyproject.toml MANIFEST.in README.md LICENSE ./
COPY bids_fcnreg bids_fcnreg
# A list of all Python packages (software bill of materials). Tests, headers and symbols of libraries
# are not needed to run.
RUN pip install --no-cache-dir --constraint constraints.txt . \
    && pip uninstall --yes pip \
    && python3 -m venv /tmp/sbom \
    && /tmp/sbom/bin/pip install --no-cache-dir cyclonedx-bom==7.5.0 \
    && mkdir --parents /opt/bids_fcnreg/share/sbom \
    && /tmp/sbom/bin/cyclonedx-py environment --output-reproducible \
        --output-file /opt/bids_fcnreg/share/sbom/bids_fcnreg.cdx.json /opt/bids_fcnreg/bin/python \
    && rm -rf /tmp/sbom \
    && cd /opt/bids_fcnreg/lib/python3*/site-packages \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && rm -rf torch/include torch/test torch/bin/test_* torch/bin/*Test torch/bin/protoc* \
        bids_validator_deno/*.map \
    && strip --strip-unneeded torch/lib/libtorch_cpu.so torch/lib/libtorch_python.so \
        llvmlite/binding/*.so cc3d/*.so fastremap/*.so fill_voids/*.so h5py/*.so
# Kernels for all x86-64 processors with AVX2 (see docker/entrypoint.sh), in a folder with a name of
# their own. Other processors compile theirs when the container runs.
COPY docker/compile_kernels.py docker/
RUN mkdir /opt/kernels \
    && if grep --quiet --word-regexp avx2 /proc/cpuinfo; then \
        NUMBA_CPU_NAME=x86-64-v3 NUMBA_CPU_FEATURES= NUMBA_CACHE_DIR=/opt/kernels/new \
            python docker/compile_kernels.py \
        && mv /opt/kernels/new "/opt/kernels/$(date +%s)"; \
    fi
# Templates of TemplateFlow that are to be inside, such as "MNI152NLin2009cAsym MNIPediatricAsym".
ARG TEMPLATES=""
ENV TEMPLATEFLOW_HOME=/opt/templateflow
RUN mkdir ${TEMPLATEFLOW_HOME} \
    && for name in ${TEMPLATES}; do \
        python -c "from templateflow.api import get; get('${name}')" || exit 1; \
    done

FROM debian:${DEBIAN}-slim
# Nobody in the container becomes another user: no program needs the right to.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && useradd --create-home --uid 1000 user
COPY --from=build /opt /opt
COPY --chmod=755 docker/entrypoint.sh /usr/local/bin/entrypoint.sh
# Under Singularity the home folder is the user's: packages in it are not ours to load.
ENV PATH=/opt/bids_fcnreg/bin:$PATH PYTHONNOUSERSITE=1 TEMPLATEFLOW_HOME=/opt/templateflow
ARG VERSION=unknown
ARG REVISION=unknown
ENV BIDS_FCNREG_DOCKER_TAG=${VERSION}
LABEL org.opencontainers.image.title="bids_fcnreg" \
    org.opencontainers.image.description="Brain image registration with fully convolutional networks, as a BIDS App" \
    org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-McGill" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# By the convention of BIDS Apps.
RUN python -c "from importlib.metadata import version; print(version('bids_fcnreg'))" > /version
USER user
WORKDIR /tmp
ENTRYPOINT ["entrypoint.sh"]
