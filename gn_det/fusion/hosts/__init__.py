"""The blocks of each library, in one module each; none imports its library."""
