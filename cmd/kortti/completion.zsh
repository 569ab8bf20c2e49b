#compdef kortti
# Completion of kortti for zsh. Load it from ~/.zshrc, after compinit:
#	source <(kortti completion zsh)
_kortti() {
	local -a found
	local line word
	while IFS= read -r line; do
		word=${line%%$'\t'*}
		case $word in
		:files) _files; return ;;
		:commands) _command_names -e; return ;;
		esac
		if [[ $line == *$'\t'* ]]; then
			found+=("${word//:/\\:}:${line#*$'\t'}")
		else
			found+=("${word//:/\\:}")
		fi
	done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
	_describe kortti found
}
compdef _kortti kortti
