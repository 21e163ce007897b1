"""The page on which a person decides on the rows of an audit, with the keyboard or by touch."""
