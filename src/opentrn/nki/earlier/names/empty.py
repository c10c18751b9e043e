"""A package of the earlier API of which only the submodules matter."""
