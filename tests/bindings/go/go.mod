module ploop.example/program

go 1.19
