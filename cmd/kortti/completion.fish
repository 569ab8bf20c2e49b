# Completion of kortti for fish. Load it from ~/.config/fish/config.fish:
#	kortti completion fish | source
function __kortti_complete
	set -l words (commandline -opc) (commandline -ct)
	set -l found ($words[1] __complete $words[2..-1] 2>/dev/null)
	switch "$found[1]"
		case :files
			__fish_complete_path (commandline -ct)
		case :commands
			__fish_complete_command
		case '*'
			string join \n -- $found
	end
end
complete -c kortti -f -a '(__kortti_complete)'
