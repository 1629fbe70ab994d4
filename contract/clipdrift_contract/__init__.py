"""What the components agree on: events, metric names, the bus, time, errors.

No component imports another; all of them meet here. Importing a module of this package has no effect.
"""
