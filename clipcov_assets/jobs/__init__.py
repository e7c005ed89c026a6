"""Work that runs the same in this process as on another machine: resources and names in, what was made out."""
