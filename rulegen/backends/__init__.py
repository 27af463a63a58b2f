"""How a model becomes rules, sets, virtual servers, or a configuration of nginx: one package for each."""
