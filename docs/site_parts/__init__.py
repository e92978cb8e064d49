"""What builds the site beside Sphinx and its extensions."""
