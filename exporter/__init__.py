"""Lower trained on-device recommenders to phone formats and prove that they still give the same scores."""
