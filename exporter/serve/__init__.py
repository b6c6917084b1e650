"""A program of the cloud as a service: requests are read with distrust, computed in batches, counted, and answered."""
