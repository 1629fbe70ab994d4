"""Which gradients training would see today: measured on the model in service, without an optimizer step."""
