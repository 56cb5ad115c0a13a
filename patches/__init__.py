"""Insert-only patches of the upstreams, shipped as package data. Imported as `ddo_patches`."""
