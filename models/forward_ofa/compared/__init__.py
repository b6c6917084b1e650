"""The methods that Forward-OFA is compared with; those that leave one part of it out are switches of the supernet."""
