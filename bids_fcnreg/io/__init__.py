"""Files in and out: images, transforms, points."""
