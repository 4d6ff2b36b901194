"""From a request to a plan: recipe, data, starting weights, and the defaults for them."""
