"""Forward-OFA: a controller chooses a user's blocks, a mapper generates their weights, an assembler puts them together.

Code name -> paper symbol: Controller.encoder E, Controller.head H, logits s = (beta_l0 - beta_l1), structure the choice
of eq. 5 with 1 for a block that runs, Interest E', latent h, structure vector I, Mapper the meta network of eq. 8,
skip_probability alpha_l1, temperature tau, compactness lambda.
Sizes: batch B, history N, candidates C, vocabulary V, dimension D, blocks L, generated numbers per block P.
"""
