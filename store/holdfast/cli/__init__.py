"""The command line `holdfast …`: server, edge replica, operator and client."""
