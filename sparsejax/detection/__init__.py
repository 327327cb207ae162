"""Detection of objects by anchors, as pure functions of arrays of fixed shapes.

A box is (top, left, bottom, right), each a fraction of the image's height or width, as
tensorflow-datasets stores it. An image with fewer boxes than others is padded, and a
boolean array says which are valid.
"""
