"""Policy routing of this host, over rtnetlink."""
