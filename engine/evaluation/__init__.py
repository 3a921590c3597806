"""How good is a model: prompts, automatic masks, edges and instances on images labelled by people.

Every task takes a model and a labelled set and returns frozen values; `tables` and `plots` show
them. The command is `maskwheel evaluate`.
"""
