"""SASRec and GRU4Rec as the library RecBole (1.2.1) has them, so that weights that it trained can be imported.

Both score a candidate by the product of the user's vector with its embedding. Id 0 is padding on the right, an unknown
id a zero embedding that keeps its place. Sizes: batch B, history N, candidates C, vocabulary V, dimension D, heads h.
"""
