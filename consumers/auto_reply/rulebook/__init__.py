"""What a rules file is made of: its YAML, conditions, answers, and how text is compared. Does no IO; `rules.py` puts it together."""
