"""Language models at the edge: tuned on the server, made small, generated from on the device."""
