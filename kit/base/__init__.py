"""The ground that every other module of the kit stands on; it knows none of them."""
