"""The methods that Forward-OFA is compared with: those that leave one part of it out, and others in a file each."""
