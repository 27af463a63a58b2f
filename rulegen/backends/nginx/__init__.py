"""An L7 model as directives of nginx: one file for each host and one for each Service."""
