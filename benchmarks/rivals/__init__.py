"""The locks that people use today, each on the server that Atoll's runs on, by its own client's advice."""
