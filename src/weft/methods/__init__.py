"""The methods of the field, one file a method, written with the public `weft` alone."""
