module cpaplugin

go 1.19
