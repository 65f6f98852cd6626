"""The wire: `.proto` sources and the modules made from them (`make proto`)."""
