"""The ipvs mode: the IPVS virtual servers, ipsets and rules that kube-proxy 1.36 writes in its ipvs mode."""
