"""The command for people with a model and a folder of images.

`vexplain methods` lists the methods, and `layers` shows what a network is made of. `features`, `interpret`,
`explain` follow the paper: which features matter for each class, what these look like, and why each image got
its class. Each does what the ones before it do, and takes over what they left in the folder of results.
"""
