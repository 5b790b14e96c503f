import pyfilter

pyfilter.main()
