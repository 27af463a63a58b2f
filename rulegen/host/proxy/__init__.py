"""Programs that serve Ingresses: their files, their processes, and the sandbox in which a configuration is tested."""
