"""The assets of the graph, one file a noun, in the order of the road."""
