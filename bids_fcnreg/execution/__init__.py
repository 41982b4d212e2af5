"""How workflows are executed: plugins of Nipype, and the cache of nodes."""
