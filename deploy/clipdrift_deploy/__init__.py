"""The composition root: the `clipdrift` command, the user's project, the processes of the all-in-one mode, the demo.

The only package that knows every component, and the only place that reads files of the project and the environment.
"""
