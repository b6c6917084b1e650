"""The five systems that CoCorrRec is compared with, as the code of that paper has them; one file each.

All have an item table of V x D; id 0 is padding on the right, an unknown id a zero embedding that keeps its place.
Sizes: batch B, history N, candidates C, vocabulary V, dimension D, heads h.
"""
