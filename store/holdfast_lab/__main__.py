"""`python -m holdfast_lab`."""

from holdfast_lab.main import main

main()
