"""The live page: a small server that shows the runs of a folder and hands their trainings what people ask for."""
