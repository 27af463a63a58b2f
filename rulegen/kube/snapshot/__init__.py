"""All objects at one moment: slices joined to Services, endpoints from Pods, previews of addresses."""
