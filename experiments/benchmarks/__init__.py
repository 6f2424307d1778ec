"""How fast the code runs where it is run, beside a yardstick measured in the same minute."""
