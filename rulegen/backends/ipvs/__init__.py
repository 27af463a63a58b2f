"""Services as IPVS virtual servers, with ipsets and a few rules: the same as kube-proxy 1.36 in its ipvs mode."""
