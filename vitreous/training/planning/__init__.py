"""From a request to a plan: weights, shape, batch size, device."""
