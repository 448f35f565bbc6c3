"""The update rules, one file each, and what they share. An algorithm is a file here and a YAML in `conf/algorithm/`."""
