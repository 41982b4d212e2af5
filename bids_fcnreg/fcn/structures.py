"""Structures that the anatomy network segments, and the tissues they consist of."""

#: Label values (FreeSurfer's) and names of the segmented structures, in channel order.
STRUCTURES = {
    0: "Background",
    2: "Left-Cerebral-White-Matter",
    3: "Left-Cerebral-Cortex",
    4: "Left-Lateral-Ventricle",
    7: "Left-Cerebellum-White-Matter",
    8: "Left-Cerebellum-Cortex",
    10: "Left-Thalamus",
    11: "Left-Caudate",
    12: "Left-Putamen",
    13: "Left-Pallidum",
    17: "Left-Hippocampus",
    18: "Left-Amygdala",
    26: "Left-Accumbens-area",
    28: "Left-VentralDC",
    41: "Right-Cerebral-White-Matter",
    42: "Right-Cerebral-Cortex",
    43: "Right-Lateral-Ventricle",
    46: "Right-Cerebellum-White-Matter",
    47: "Right-Cerebellum-Cortex",
    49: "Right-Thalamus",
    50: "Right-Caudate",
    51: "Right-Putamen",
    52: "Right-Pallidum",
    53: "Right-Hippocampus",
    54: "Right-Amygdala",
    58: "Right-Accumbens-area",
    60: "Right-VentralDC",
    16: "Brain-Stem",
    14: "3rd-Ventricle",
    15: "4th-Ventricle",
    24: "CSF",
}

#: Tissues in the order of the labels of a segmentation (1, 2, 3), and their structures.
TISSUES = {
    "GM": (
        "Cerebral-Cortex", "Cerebellum-Cortex", "Thalamus", "Caudate", "Putamen", "Pallidum",
        "Hippocampus", "Amygdala", "Accumbens-area",
    ),
    "WM": ("Cerebral-White-Matter", "Cerebellum-White-Matter", "Brain-Stem", "VentralDC"),
    "CSF": ("Lateral-Ventricle", "3rd-Ventricle", "4th-Ventricle", "CSF"),
}  # fmt: skip
