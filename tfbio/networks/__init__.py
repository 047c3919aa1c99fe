"""Networks: what a whole model becomes under a rule of networks."""
