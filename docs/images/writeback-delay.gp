# Metadata writes against delay and maximum age: plotted from what `bench/writeback delays` prints.
#   gnuplot -e "data='delays.dat'; picture='writeback-delay.svg'" writeback-delay.gp
set terminal svg size 760,440 font "sans-serif,12" background "white"
set output picture
set title "BAT page writes for 10,000 random writes of 4 KiB in 10 s (16 GiB disk, 17 BAT pages)"
set xlabel "writeback delay, ms"
set ylabel "page writes"
set logscale xy
set xrange [4:6000]
set yrange [0.8:10000]
set grid
set key bottom left
plot data using 1:($2 > 0 ? $2 : 1/0) with linespoints title "maximum age = delay", \
     data using 1:($3 > 0 ? $3 : 1/0) with linespoints title "2 delays", \
     data using 1:($4 > 0 ? $4 : 1/0) with linespoints title "10 delays", \
     data using 1:($5 > 0 ? $5 : 1/0) with linespoints title "1000 delays"
