"""elastix, through itk-elastix."""

from __future__ import annotations

import SimpleITK as sitk
from measures import Meter
from peer import Maps, Task, Unavailable, field_of

from bids_fcnreg.fcn.spatial.transform import Transform

#: Spacing of the control points of elastix's default B-spline, mm.
CONTROL_SPACING = 10.0


def elastix(task: Task, meter: Meter, factor: float = 1.0) -> Maps:
    """Run elastix with its default parameter maps, affine then B-spline.

    Parameters
    ----------
    task, meter
        See `peers.greedy`.
    factor : float
        Multiplies the spacing of the control points.
    """
    try:
        import itk

        method = itk.elastix_registration_method
    except (ImportError, AttributeError) as why:
        raise Unavailable("itk-elastix is not installed (pip install itk-elastix).") from why
    fixed, moving = (itk.imread(str(path), itk.F) for path in (task.fixed, task.moving))
    settings = itk.ParameterObject.New()
    for kind in ("affine", "bspline"):
        chosen = settings.GetDefaultParameterMap(kind)
        if kind == "bspline":
            chosen["FinalGridSpacingInPhysicalUnits"] = (f"{CONTROL_SPACING * factor:g}",)
        settings.AddParameterMap(chosen)
    with meter:
        _, found = method(fixed, moving, parameter_object=settings, number_of_threads=task.threads)
        field = itk.transformix_deformation_field(moving, found)
    vectors = sitk.GetImageFromArray(itk.array_from_image(field), isVector=True)
    vectors.SetSpacing([float(size) for size in field.GetSpacing()])
    vectors.SetOrigin([float(place) for place in field.GetOrigin()])
    vectors.SetDirection(itk.array_from_matrix(field.GetDirection()).ravel().tolist())
    return Maps(Transform((field_of(vectors),)))
