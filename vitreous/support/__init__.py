"""What every package leans on: errors a person can act on, atomic files, inert text, the host."""
