"""Transform files of other software: a module per format, and a table of them."""
